import { existsSync, mkdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { fail, root } from '../prepare.mjs'
import { run } from './disk.mjs'
import { limitSeconds } from './run.mjs'

const JOB = join(root, 'scripts/machines/job.sh')
const POOL_BYTES = '16G'

/**
 * A read-only disk with this checkout's HEAD and what is to be done with it.
 * @param {string} dir @param {readonly string[]} steps
 */
export function bringDisk(dir, steps) {
  const folder = join(dir, 'luggage')
  rmSync(folder, { recursive: true, force: true })
  mkdirSync(folder)
  run('git', ['-C', root, 'archive', '--output', join(folder, 'checkout.tar'), 'HEAD'])
  run('cp', ['-r', JOB, join(root, 'scripts/machines/steps'), folder])
  writeFileSync(join(folder, 'plan'), steps.map((step) => `${step} ${limitSeconds(step)}\n`).join(''))
  const image = join(dir, 'luggage.img')
  rmSync(image, { force: true })
  run('truncate', ['-s', '128M', image])
  run('mkfs.ext4', ['-q', '-L', 'luggage', '-d', folder, image])
  rmSync(folder, { recursive: true })
  return image
}

/**
 * A btrfs disk for the platform's pool, with the base image of another pool where one is given; kept from run to run.
 * @param {string} dir @param {string | undefined} seed
 */
export function poolDisk(dir, seed) {
  const image = join(dir, 'pool.img')
  if (existsSync(image)) return image
  const folder = join(dir, 'pool')
  rmSync(folder, { recursive: true, force: true })
  mkdirSync(join(folder, 'layers/index'), { recursive: true })
  if (seed !== undefined) {
    const index = join(seed, 'layers/index/image-minimal.json')
    if (!existsSync(index)) fail(`${seed} is not a pool with a base image.`)
    const { digest } = JSON.parse(readFileSync(index, 'utf8'))
    run('cp', [index, join(folder, 'layers/index')])
    run('cp', ['-a', join(seed, 'layers', digest), join(folder, 'layers')])
  }
  run('truncate', ['-s', POOL_BYTES, `${image}.tmp`])
  run('mkfs.btrfs', ['-q', '-L', 'pool', '--rootdir', folder, `${image}.tmp`])
  renameSync(`${image}.tmp`, image)
  rmSync(folder, { recursive: true })
  return image
}
