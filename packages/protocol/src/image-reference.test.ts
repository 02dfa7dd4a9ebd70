import { describe, expect, it } from 'vitest'
import { formatImageReference, parseImageReference } from './image-reference.js'

const digest = `sha256:${'0123456789abcdef'.repeat(4)}`

describe('references of images', () => {
  it.each([
    ['python', 'docker.io/library/python:latest'],
    ['python:3.12-slim', 'docker.io/library/python:3.12-slim'],
    ['bitnami/redis', 'docker.io/bitnami/redis:latest'],
    ['index.docker.io/python', 'docker.io/library/python:latest'],
    ['ghcr.io/owner/some_image__x:v1', 'ghcr.io/owner/some_image__x:v1'],
    ['localhost/one', 'localhost/one:latest'],
    ['localhost:5000/one:2', 'localhost:5000/one:2'],
    ['127.0.0.1:5000/a/b/c', '127.0.0.1:5000/a/b/c:latest'],
    ['REGISTRY.example/one', 'registry.example/one:latest'],
    [`python@${digest}`, `docker.io/library/python@${digest}`],
    [`python:3@${digest}`, `docker.io/library/python@${digest}`],
  ])('reads %s', (text, full) => {
    const reference = parseImageReference(text)
    expect(reference && formatImageReference(reference)).toBe(full)
    expect(parseImageReference(full)).toEqual(reference)
  })

  it.each([
    ['', 'nothing'],
    ['Python', 'capitals'],
    ['python:', 'an empty tag'],
    ['python:a b', 'a space'],
    ['python@sha256:abc', 'a short digest'],
    [`python@${digest}@${digest}`, 'two digests'],
    ['a//b', 'an empty part'],
    ['-a', 'a dash at its beginning'],
    ['host.example:port/a', 'a port that is none'],
    ['http://host.example/a', 'a URL'],
    ['user:secret@host.example/a', 'a password'],
    ['../a', 'a way out'],
    ['a\n', 'a line end'],
    [`h.example/${'a'.repeat(250)}`, 'too long a name'],
    ['[::1]:5000/a', 'an IPv6 address'],
  ])('refuses %j: %s', (text) => {
    expect(parseImageReference(text)).toBeUndefined()
  })
})
