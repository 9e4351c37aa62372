// Orders faults and prints, as one JSON object, how the TypeScript SDK told of each.
// Bundled with SDK_NAME aliased to either name of the package.
import { Daytona } from 'the-sdk'

async function order(kind: string, action: object, rule: object): Promise<void> {
  const answer = await fetch(process.env.DAYTONA_API_URL!.replace(/api$/, '_sandyard/faults'), {
    method: 'POST',
    headers: { Authorization: `Bearer ${process.env.DAYTONA_API_KEY}` },
    body: JSON.stringify({ ...rule, action: { kind, ...action } }),
  })
  if (answer.status !== 201) throw new Error(await answer.text())
}

async function told(call: () => Promise<unknown>): Promise<[string, string, unknown]> {
  try {
    return ['nothing was thrown', JSON.stringify(await call()), null]
  } catch (error) {
    const { name, message, statusCode } = error as Error & { statusCode?: number }
    return [(error as Error).constructor.name || name, message, statusCode ?? null]
  }
}

async function main() {
  const daytona = new Daytona()
  const saw: Record<string, unknown> = {}
  const execute = { operation: 'ExecuteCommand' }
  const logs = { operation: 'GetSessionCommandLogs' }

  await order('status', { status: 409, message: 'ordered conflict' }, { operation: 'createSandbox' })
  saw.create = await told(() => daytona.create())
  const sandbox = await daytona.create()
  const run = () => sandbox.process.executeCommand('echo hello')

  await order('status', { status: 429, message: 'ordered limit' }, execute)
  saw.status = await told(run)
  await order('drop', {}, { ...execute, count: 1 })
  saw.drop = await told(run)
  await order('drop-after', {}, { ...execute, count: 1 })
  saw.dropAfter = await told(() => sandbox.process.executeCommand('echo done >> work'))
  saw.work = (await sandbox.process.executeCommand('cat work')).result
  await order('cut', { bytes: 3 }, execute)
  saw.cut = await told(run)

  await sandbox.process.createSession('s')
  const follow = async (command: string) => {
    const made = await sandbox.process.executeSessionCommand('s', { command, runAsync: true })
    let seen = ''
    const keep = (chunk: string) => void (seen += chunk)
    await sandbox.process.getSessionCommandLogs('s', made.cmdId!, keep, keep)
    return seen
  }
  await order('slice', { bytes: 2 }, logs)
  saw.slice = await told(() => follow('echo pieces'))
  await order('close', { code: 1011, reason: 'ordered end' }, logs)
  saw.close = await told(() => follow('sleep 1; echo never'))
  await order('stall', { seconds: 0.5, bytes: 2 }, logs)
  saw.stall = await told(() => follow('echo late'))

  await order('die', {}, execute)
  saw.die = await told(run)
  // Its runner notices a moment after who asked.
  do saw.state = (await daytona.get(sandbox.id)).state
  while (saw.state === 'started')
  console.log(JSON.stringify(saw))
  await sandbox.delete()
}

main()
