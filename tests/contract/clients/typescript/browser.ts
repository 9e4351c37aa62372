// The TypeScript SDK in a browser page: create, follow a command's log over a WebSocket that cannot send headers, delete.
// The page's own address carries the API's URL and key; what was seen is posted back to where the page came from.
import { Daytona } from '@daytonaio/sdk'

async function flow(apiUrl: string, apiKey: string) {
  const daytona = new Daytona({ apiUrl, apiKey })
  const sandbox = await daytona.create()
  try {
    await sandbox.process.createSession('work')
    const command = 'for i in 1 2 3; do echo out$i; echo err$i >&2; sleep 0.4; done'
    const started = await sandbox.process.executeSessionCommand('work', { command, runAsync: true })
    const seen = { out: '', err: '' }
    const times: number[] = []
    const keep = (stream: 'out' | 'err') => (chunk: string) => {
      seen[stream] += chunk
      times.push(performance.now())
    }
    await sandbox.process.getSessionCommandLogs('work', started.cmdId!, keep('out'), keep('err'))
    const exit = (await sandbox.process.getSessionCommand('work', started.cmdId!)).exitCode
    return { seen, exit, spread: (times[times.length - 1] - times[0]) / 1000 }
  } finally {
    await sandbox.delete()
  }
}

const asked = new URLSearchParams(location.search)
flow(asked.get('url')!, asked.get('key')!)
  .catch((error) => ({ error: `${error.constructor.name}: ${error.message}` }))
  .then((body) => fetch('/saw', { method: 'POST', body: JSON.stringify(body) }))
