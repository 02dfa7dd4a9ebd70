import { describe, expect, it } from 'vitest'
import { listeningPorts } from './listening.js'

const table = `  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1 1 0 100 0 0 10 0
   1: 0100007F:1F91 0100007F:1F90 01 00000000:00000000 00:00000000 00000000     0        0 2 1 0 100 0 0 10 0
   0: 00000000000000000000000000000000:0016 00000000000000000000000000000000:0000 0A 00000000:00000000 0
   1: 00000000000000000000000000000000:1F90 00000000000000000000000000000000:0000 0A 00000000:00000000 0
`

describe('listeningPorts', () => {
  it('finds what listens, in order and once, and no connections', () => {
    expect(listeningPorts(table)).toEqual([22, 8080])
  })

  it('finds nothing in what is no table', () => {
    expect(listeningPorts('cat: /proc/net/tcp6: No such file')).toEqual([])
  })
})
