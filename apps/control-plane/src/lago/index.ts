export { isApiKey, LAGO_BATCH, LagoClient, type LagoConfig, type LagoInput, type LagoVerdict } from './client.js'
