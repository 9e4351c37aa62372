// Terminals on Node; prints what it saw as one JSON object.
import { Daytona } from '@daytonaio/sdk'
import { terminalFlow } from './terminal-flow'

async function main() {
  const sandbox = await new Daytona().create()
  try {
    console.log(JSON.stringify(await terminalFlow(sandbox)))
  } finally {
    await sandbox.delete()
  }
}

main()
