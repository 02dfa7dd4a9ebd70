import { describe, expect, it } from 'vitest'
import { isClientPath, isClientRoute } from './guest.js'

describe('routes of the guest agent for clients', () => {
  it('are both services, files and what tells of the guest', () => {
    for (const route of [
      'POST /process.Process/Start',
      'POST /process.Process/StreamInput',
      'POST /filesystem.Filesystem/WatchDir',
      'POST /filesystem.Filesystem/GetWatcherEvents',
      'GET /files',
      'POST /files',
      'GET /health',
      'GET /metrics',
      'GET /envs',
    ]) {
      const [method = '', path = ''] = route.split(' ')
      expect([route, isClientRoute(method, path), isClientPath(path)]).toEqual([route, true, true])
    }
  })

  it('are none of what is the host’s, and no other spelling or method', () => {
    for (const route of [
      'POST /init',
      'GET /activity',
      'POST /quiesce',
      'GET /archive',
      'PUT /archive',
      'GET /connect/80',
      'GET /client-line',
      'PUT /files',
      'GET /process.Process/Start',
      'POST /process.process/Start',
      'POST //files',
      'GET /files/',
      'GET /./files',
      'GET /health/../init',
      'GET /%66iles',
      'get /files',
      'GET /Files',
      'GET /constructor',
      'GET ',
    ]) {
      const [method = '', path = ''] = route.split(' ')
      expect([route, isClientRoute(method, path)]).toEqual([route, false])
    }
  })
})
