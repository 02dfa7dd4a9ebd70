/** In the place of `$app/navigation`: nothing of what is painted first can be used yet. */
export async function goto(): Promise<void> {}
