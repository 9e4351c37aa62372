// Language operations and metrics of a sandbox that is already there; prints what it saw as one JSON object.
import { Daytona } from 'the-sdk'

async function main() {
  const sandbox = await new Daytona().get(process.env.SANDBOX_ID!)
  const saw: Record<string, unknown> = {}
  const lsp = await sandbox.createLspServer('python', 'project')
  try {
    await lsp.documentSymbols('project/greeter.py')
  } catch (error) {
    saw.early = [(error as Error).constructor.name, (error as { errorCode?: string }).errorCode, (error as Error).message]
  }
  await lsp.start()
  await lsp.start()
  saw.workspace = (await lsp.sandboxSymbols('Greeter')).map((one) => [one.name, one.location.range.start.line])
  await lsp.didOpen('project/greeter.py')
  saw.document = (await lsp.documentSymbols('project/greeter.py')).map((one) => [one.name, one.kind])
  const list = await lsp.completions('project/greeter.py', { line: 5, character: 12 })
  saw.completions = list.items.map((item) => item.label)
  await lsp.didClose('project/greeter.py')
  await lsp.stop()
  saw.metrics = await sandbox.getMetricsLatest()
  console.log(JSON.stringify(saw))
}

main()
