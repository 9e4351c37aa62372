// What bundlers for browsers put in place of Node's globals.
export { Buffer } from 'buffer/'
