// The TypeScript SDK in a browser page: create, follow a command's log over a WebSocket that cannot send headers, delete.
// The page's own address carries the API's URL and key; what was seen is posted back to where the page came from.
import { Daytona } from '@daytonaio/sdk'

async function flow(apiUrl: string, apiKey: string) {
  const daytona = new Daytona({ apiUrl, apiKey })
  const sandbox = await daytona.create()
  try {
    await sandbox.process.createSession('work')
    // Goes on when somebody has heard its first lines, and ends with 1 where nobody did while it ran.
    const wait = 'for n in $(seq 400); do [ -e ~/heard ] && break; sleep 0.05; done'
    const rest = 'for i in 2 3; do echo out$i; echo err$i >&2; done; [ -e ~/heard ]'
    const command = `echo out1; echo err1 >&2; ${wait}; ${rest}`
    const started = await sandbox.process.executeSessionCommand('work', { command, runAsync: true })
    const seen = { out: '', err: '' }
    let told: Promise<unknown> | undefined
    const keep = (stream: 'out' | 'err') => (chunk: string) => {
      seen[stream] += chunk
      told ??= sandbox.process.executeCommand('touch ~/heard')
    }
    await sandbox.process.getSessionCommandLogs('work', started.cmdId!, keep('out'), keep('err'))
    await told
    const exit = (await sandbox.process.getSessionCommand('work', started.cmdId!)).exitCode
    return { seen, exit }
  } finally {
    await sandbox.delete()
  }
}

const asked = new URLSearchParams(location.search)
flow(asked.get('url')!, asked.get('key')!)
  .catch((error) => ({ error: `${error.constructor.name}: ${error.message}` }))
  .then((body) => fetch('/saw', { method: 'POST', body: JSON.stringify(body) }))
