# From the bare checkout to the output of a command in a guest, as a new user does it.
npm run demo
