import {
  create,
  type DescMessage,
  fromBinary,
  fromJsonString,
  type MessageInitShape,
  type MessageShape,
  toBinary,
  toJsonString,
} from '@bufbuild/protobuf'
import { AppError, errorText } from '@wrenn/base'

/** One of the two encodings of the Connect protocol. */
export interface Codec {
  readonly name: 'json' | 'proto'
  decode<Desc extends DescMessage>(schema: Desc, bytes: Uint8Array): MessageShape<Desc>
  encode<Desc extends DescMessage>(schema: Desc, message: MessageInitShape<Desc>): Uint8Array
}

function decodeOrThrow<T>(decode: () => T): T {
  try {
    return decode()
  } catch (error) {
    throw new AppError('invalid_request', `The request message cannot be decoded: ${errorText(error)}.`)
  }
}

/** Proto3 JSON. Unknown fields are ignored, so that newer clients work; an empty body is an empty message. */
export const jsonCodec: Codec = {
  name: 'json',
  decode: (schema, bytes) =>
    decodeOrThrow(() => {
      const text = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString('utf8')
      return fromJsonString(schema, text === '' ? '{}' : text, { ignoreUnknownFields: true })
    }),
  encode: (schema, message) => Buffer.from(toJsonString(schema, create(schema, message))),
}

/** Binary protobuf. */
export const protoCodec: Codec = {
  name: 'proto',
  decode: (schema, bytes) => decodeOrThrow(() => fromBinary(schema, bytes)),
  encode: (schema, message) => toBinary(schema, create(schema, message)),
}
