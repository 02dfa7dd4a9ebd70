/** One step of a build. What it means is what the instruction of a Dockerfile of that name does. */
export interface RecipeStep {
  readonly type: 'RUN' | 'COPY' | 'ENV' | 'WORKDIR' | 'USER'
  /**
   * `RUN`: what is run after `shell`. `COPY`: source, destination, owner, mode; without an owner what comes of the
   * context belongs to root, and what comes of a stage to whom it did. `ENV`: names and values in turn. `WORKDIR`: a
   * path. `USER`: a name or number, and `:` and a group.
   */
  readonly args: readonly string[]
  /** Of a `RUN`: program and arguments before what is run. @default ['/bin/sh', '-c'] */
  readonly shell?: readonly string[]
  /** Variables of this step alone, as `ARG` gives them. */
  readonly envs?: Readonly<Record<string, string>>
  /** Of a `RUN`: what it may read while it runs. */
  readonly secrets?: readonly RecipeSecret[]
  /** Of a `RUN`: folders that are empty while it runs, and of which nothing stays. */
  readonly scratch?: readonly string[]
  /** Of a `COPY` from the context: by what its upload is called. */
  readonly filesHash?: string
  /** Of such a `COPY`: its files with digests, by which a later build can say what has changed. */
  readonly files?: readonly (readonly [path: string, digest: string])[]
  /** Of a `COPY` from a stage: its place among the stages of the recipe. */
  readonly stage?: number
  /** The step as logs call it. @default made of `args` */
  readonly label?: string
  /** Of the file that it was written in, from 1 on: errors of the build tell it. */
  readonly line?: number
}

/** A secret in one step: as a file, as a variable, or both. */
export interface RecipeSecret {
  readonly id: string
  /** @default none */
  readonly path?: string
  /** Name of a variable. @default none */
  readonly env?: string
  /** Of the file. @default 0o400 */
  readonly mode?: number
  /** Of the file, numbers. @default '0:0' */
  readonly owner?: string
}

/** What steps begin with, and the steps. */
export interface RecipeStage {
  /** A template or an image, by its name. */
  readonly from: string
  readonly steps: readonly RecipeStep[]
}

/** An image of a file, of `docker save` or of an OCI layout, that stages begin with. */
export interface RecipeImageFile {
  /** By what its upload is called. */
  readonly hash: string
  /** By what the image is called in the file, or `@` and its place. @default it has one alone */
  readonly image?: string
}

/** Files of a `COPY`, as a tar; or the file of an image. */
export interface RecipeUpload {
  /** SHA-256 in hexadecimal digits: the same for the same files. */
  readonly hash: string
  /**
   * Reads it anew each time. A Blob, such as a file of a page, is sent from where it lies, and again when the connection breaks; browsers send no
   * streams by HTTP/1.1.
   */
  open(): ReadableStream<Uint8Array> | Blob
}

/** Of what a template is made. */
export interface Recipe {
  /** The last one becomes the template; others are there to be copied from. */
  readonly stages: readonly RecipeStage[]
  /** Runs in the template, from before its snapshot on: a line for a shell. */
  readonly startCommand?: string
  /**
   * The same as a container has it, instead of `startCommand`: program and arguments, which `command` goes on.
   * @default that of the image that the last stage begins with
   */
  readonly entrypoint?: readonly string[]
  /** What goes on `entrypoint`. @default that of the image, unless `entrypoint` is given */
  readonly command?: readonly string[]
  /**
   * Without a ready command it is waited until one of these TCP ports, or of those that the image says, is listened on; 30 s at most.
   * @default none
   */
  readonly ports?: readonly number[]
  /** Succeeds once the start command has done its work. */
  readonly readyCommand?: string
  readonly uploads: readonly RecipeUpload[]
  /** By the `from` of the stages that begin with them. @default none */
  readonly imageFiles?: Readonly<Record<string, RecipeImageFile>>
}

/**
 * A recipe of an image of a registry as it is. Its variables, user and directory are the template's; what a container of it would
 * run is started.
 * @param image `[registry[:port]/]name[:tag][@sha256:…]`, or the name of a template, which goes first
 * @example
 * await wrenn.templates.build('python', imageRecipe('docker.io/library/python:3.12'))
 */
export function imageRecipe(image: string): Recipe {
  return { stages: [{ from: image, steps: [] }], uploads: [] }
}

/** How a recipe is made of a file. */
export interface ImageFileOptions {
  /** By what the image is called in the file. @default it has one alone */
  readonly image?: string
  /** As logs and errors call the file. @default `image file` */
  readonly called?: string
}

/**
 * A recipe of an image as it is: as `docker save` writes it, or the tar of an OCI layout, also of gzip, zstd or xz. Its variables, user and directory are
 * the template's; what a container of it would run is started.
 * @example
 * const file = { hash: sha256, open: () => Readable.toWeb(createReadStream('app.tar')) }
 * await wrenn.templates.build('app', imageFileRecipe(file, { image: 'app:2' }))
 */
export function imageFileRecipe(file: RecipeUpload, options: ImageFileOptions = {}): Recipe {
  const { image, called: from = 'image file' } = options
  const imageFile = { hash: file.hash, ...(image === undefined ? {} : { image }) }
  return { stages: [{ from, steps: [] }], uploads: [file], imageFiles: { [from]: imageFile } }
}

/** What is at a path of a context. */
export interface ContextEntry {
  /** Below the context, without a slash at its begin or end. */
  readonly path: string
  readonly type: 'file' | 'directory' | 'symlink'
  /** Permission bits. */
  readonly mode: number
  /** Of a symbolic link: where it leads. */
  readonly link?: string
}

/** An entry of an archive: what is at a path of the context, or a text. */
export type ArchiveEntry =
  | {
      readonly as: string
      readonly entry: ContextEntry
      /** Of a file: what {@link BuildContext.digest} has said of the bytes that are to be packed. */
      readonly digest?: string
    }
  | { readonly as: string; readonly text: string }

/** The files that a Dockerfile may copy. */
export interface BuildContext {
  /** All of them, folders before what is in them, without what is left out by a `.dockerignore`. */
  entries(): Promise<readonly ContextEntry[]>
  /** SHA-256 of a file's bytes, in hexadecimal digits. */
  digest(path: string): Promise<string>
  /** A tar; owners do not matter. It fails where a file's bytes are not, any more, those of its `digest`. */
  archive(entries: readonly ArchiveEntry[]): ReadableStream<Uint8Array>
}
