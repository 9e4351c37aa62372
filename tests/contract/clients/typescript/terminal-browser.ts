// Terminals in a browser page of another origin; what was seen is posted back to where the page came from.
import { Daytona } from '@daytonaio/sdk'
import { terminalFlow } from './terminal-flow'

async function flow(apiUrl: string, apiKey: string) {
  const sandbox = await new Daytona({ apiUrl, apiKey }).create()
  try {
    return await terminalFlow(sandbox)
  } finally {
    await sandbox.delete()
  }
}

const asked = new URLSearchParams(location.search)
flow(asked.get('url')!, asked.get('key')!)
  .catch((error) => ({ error: `${error.constructor.name}: ${error.message}` }))
  .then((body) => fetch('/saw', { method: 'POST', body: JSON.stringify(body) }))
