import { z } from 'zod'
import { pathSchema, requestBody, userSchema } from './common.js'

const fileTypes = ['file', 'directory', 'symlink', 'unknown'] as const

const fileEntrySchema = z
  .object({
    name: z.string(),
    path: z.string(),
    type: z.enum(fileTypes),
    size: z.number(),
    mode: z.int().describe('Permission bits.'),
    permissions: z.string().describe('As `ls -l` shows them.'),
    owner: z.string(),
    group: z.string(),
    modified_at: z.int().describe('Unix time in seconds.'),
    symlink_target: z.string().optional(),
    target_type: z.enum(fileTypes).optional().describe('What a symlink points to.'),
  })
  .meta({ id: 'FileEntry' })
/** What is at a path. Of a symbolic link, size, mode and owner are its target's, while the target is there. */
export type FileEntry = z.infer<typeof fileEntrySchema>

/**
 * Body of `files/stat`, `files/mkdir` and `files/remove`. Paths are in bodies where they can be, so that they stay out of
 * access logs.
 */
export const pathRequestSchema = requestBody({ path: pathSchema, user: userSchema.optional() }).meta({
  id: 'PathRequest',
})

/** Body of `files/stream/read`; the answer is the bytes. */
export const readFileRequestSchema = requestBody({
  path: pathSchema,
  user: userSchema.optional(),
  offset: z.int().min(0).optional().describe('First byte wanted.'),
  length: z.int().min(0).optional().describe('Bytes wanted; absent means to the end.'),
}).meta({ id: 'ReadFileRequest' })
/** Which bytes of which file; both numbers absent: all of it. */
export type ReadFileRequest = z.infer<typeof readFileRequestSchema>

/** Body of `files/list`. */
export const listDirRequestSchema = requestBody({
  path: pathSchema,
  depth: z.int().min(0).max(64).default(1).describe('Levels below `path`; 0 counts as 1.'),
  user: userSchema.optional(),
}).meta({ id: 'ListDirRequest' })
/** As a client sends it: without `depth` only the directory's own entries. */
export type ListDirRequest = z.input<typeof listDirRequestSchema>

/** Body of `files/move`; parents of the destination are made. */
export const moveFileRequestSchema = requestBody({
  source: pathSchema,
  destination: pathSchema,
  user: userSchema.optional(),
}).meta({ id: 'MoveFileRequest' })
/** A rename; a file at the destination is replaced. */
export type MoveFileRequest = z.infer<typeof moveFileRequestSchema>

/** Answer of `files/stat`, `files/mkdir` and `files/move`: an object, so that it can grow. */
export const fileEntryAnswerSchema = z.object({ entry: fileEntrySchema }).meta({ id: 'FileEntryAnswer' })
/** One entry; of a move it is the destination. */
export type FileEntryAnswer = z.infer<typeof fileEntryAnswerSchema>

/** Answer of `files/list`, the directory itself left out. */
export const fileListSchema = z.object({ entries: z.array(fileEntrySchema) }).meta({ id: 'FileList' })
/** Entries of a directory, with those below when `depth` is more than 1. */
export type FileList = z.infer<typeof fileListSchema>

/** Query of the raw routes `GET`, `HEAD` and `PUT /v1/capsules/{id}/files`. */
export const rawFileQuerySchema = z.object({ path: pathSchema, user: userSchema.optional() })

/** Answer of uploads: where it went and how many bytes came. */
export const uploadResultSchema = z.object({ path: z.string(), bytes: z.number() }).meta({ id: 'UploadResult' })
/** Of an archive, `bytes` counts the tar, not the files in it. */
export type UploadResult = z.infer<typeof uploadResultSchema>

/** Query of `PUT /v1/capsules/{id}/files`. */
export const writeFileQuerySchema = rawFileQuerySchema.extend({
  mode: z
    .string()
    .regex(/^[0-7]{3,4}$/, 'must be three or four octal digits')
    .optional()
    .describe('Permission bits in octal; absent: those of the file that is replaced, else 644.'),
})

/** Query of `GET` and `PUT /v1/capsules/{id}/files/archive`. */
export const archiveQuerySchema = z.object({ path: pathSchema, user: userSchema.optional() })
