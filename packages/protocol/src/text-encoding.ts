import { configureTextEncoding } from '@bufbuild/protobuf/wire'

const encoder = new TextEncoder()
/** Without `ignoreBOM` a text that begins with U+FEFF, as a file name or an argument may, would lose it (WHATWG Encoding §7.1). */
const decoder = new TextDecoder('utf-8', { ignoreBOM: true })
const strictDecoder = new TextDecoder('utf-8', { ignoreBOM: true, fatal: true })

/** Makes protobuf messages bring every text as it is. To be imported wherever they are read. */
configureTextEncoding({
  encodeUtf8: (text) => encoder.encode(text),
  decodeUtf8: (bytes, strict) => (strict ? strictDecoder : decoder).decode(bytes),
  checkUtf8: isWellFormed,
})

/** False for half of a surrogate pair, which no UTF-8 can say. */
function isWellFormed(text: string): boolean {
  return !/\p{Surrogate}/u.test(text)
}
