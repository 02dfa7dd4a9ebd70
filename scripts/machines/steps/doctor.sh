# Nothing may be wrong after the demo; warnings may be there.
npx wrenn doctor
