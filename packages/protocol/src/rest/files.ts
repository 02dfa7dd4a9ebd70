import { z } from 'zod'
import { pathSchema, requestBody, userSchema } from './common.js'

export const fileTypes = ['file', 'directory', 'symlink', 'unknown'] as const

export const fileEntrySchema = z
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
export type FileEntry = z.infer<typeof fileEntrySchema>

export const pathRequestSchema = requestBody({ path: pathSchema, user: userSchema.optional() }).meta({
  id: 'PathRequest',
})
export type PathRequest = z.infer<typeof pathRequestSchema>

export const readFileRequestSchema = requestBody({
  path: pathSchema,
  user: userSchema.optional(),
  offset: z.int().min(0).optional().describe('First byte wanted.'),
  length: z.int().min(0).optional().describe('Bytes wanted; absent means to the end.'),
}).meta({ id: 'ReadFileRequest' })
export type ReadFileRequest = z.infer<typeof readFileRequestSchema>

export const listDirRequestSchema = requestBody({
  path: pathSchema,
  depth: z.int().min(0).max(64).default(1).describe('Levels below `path`; 0 counts as 1.'),
  user: userSchema.optional(),
}).meta({ id: 'ListDirRequest' })
export type ListDirRequest = z.input<typeof listDirRequestSchema>

export const moveFileRequestSchema = requestBody({
  source: pathSchema,
  destination: pathSchema,
  user: userSchema.optional(),
}).meta({ id: 'MoveFileRequest' })
export type MoveFileRequest = z.infer<typeof moveFileRequestSchema>

export const fileEntryAnswerSchema = z.object({ entry: fileEntrySchema }).meta({ id: 'FileEntryAnswer' })
export type FileEntryAnswer = z.infer<typeof fileEntryAnswerSchema>

export const fileListSchema = z.object({ entries: z.array(fileEntrySchema) }).meta({ id: 'FileList' })
export type FileList = z.infer<typeof fileListSchema>

/** Query of the raw routes `GET`, `HEAD` and `PUT /v1/capsules/{id}/files`. */
export const rawFileQuerySchema = z.object({ path: pathSchema, user: userSchema.optional() })

export const uploadResultSchema = z.object({ path: z.string(), bytes: z.number() }).meta({ id: 'UploadResult' })
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
