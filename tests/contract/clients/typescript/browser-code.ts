// The TypeScript SDK in a browser page: the interpreter over a WebSocket that cannot send headers, in a given sandbox.
import { Daytona } from '@daytonaio/sdk'

async function flow(apiUrl: string, apiKey: string, id: string) {
  const sandbox = await new Daytona({ apiUrl, apiKey }).get(id)
  const seen: string[] = []
  const result = await sandbox.codeInterpreter.runCode('for n in range(3): print("line", n)\n1 / 0', {
    onStdout: (message) => void seen.push(message.output),
  })
  return { seen: seen.join(''), error: result.error?.name }
}

const asked = new URLSearchParams(location.search)
flow(asked.get('url')!, asked.get('key')!, asked.get('id')!)
  .catch((error) => ({ failed: `${error.constructor.name}: ${error.message}` }))
  .then((body) => fetch('/saw', { method: 'POST', body: JSON.stringify(body) }))
