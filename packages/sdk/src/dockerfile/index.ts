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
export { type DockerfileOptions, type DockerfileRecipe, readDockerfile } from './compile.js'
