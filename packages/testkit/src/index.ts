export { FakeGuest } from './fake-guest.js'
