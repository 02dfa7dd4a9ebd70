export type {
  ArchiveEntry,
  BuildContext,
  ContextEntry,
  Recipe,
  RecipeImageFile,
  RecipeSecret,
  RecipeStage,
  RecipeStep,
  RecipeUpload,
} from '../recipe.js'
export {
  checkDockerfile,
  type DockerfileCheck,
  type DockerfileOptions,
  type DockerfileProblem,
  type DockerfileRecipe,
  readDockerfile,
} from './compile.js'
