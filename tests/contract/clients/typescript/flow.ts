// One pass through the TypeScript SDK on Node; prints what it saw as one JSON object.
// Bundled with SDK_NAME aliased to either name of the package.
import { Daytona } from 'the-sdk'

type Seen = [stream: string, chunk: string]

async function refused(call: Promise<unknown>): Promise<[string, string]> {
  try {
    await call
  } catch (error) {
    return [(error as Error).constructor.name, (error as Error).message]
  }
  return ['nothing was thrown', '']
}

async function main() {
  const daytona = new Daytona()
  const saw: Record<string, unknown> = {}
  const labels = { flow: `typescript-${Date.now()}` }
  const sandbox = await daytona.create({ labels, envVars: { GREETING: 'hi there' } })
  try {
    saw.state = sandbox.state
    const listed: string[] = []
    for await (const one of daytona.list({ labels })) listed.push(one.id)
    saw.listed = listed.length === 1 && listed[0] === sandbox.id
    saw.byName = (await daytona.get(sandbox.name)).id === sandbox.id

    const done = await sandbox.process.executeCommand('echo one; echo $GREETING; exit 3')
    saw.exec = [done.exitCode, done.result]

    await sandbox.process.createSession('work')
    saw.duplicate = await refused(sandbox.process.createSession('work'))
    const sync = await sandbox.process.executeSessionCommand('work', { command: 'echo so; echo no >&2; (exit 4)' })
    saw.sync = [sync.exitCode, sync.stdout, sync.stderr]

    // Goes on when somebody has heard its first lines, and ends with 1 where nobody did while it ran.
    const wait = 'for n in $(seq 400); do [ -e ~/heard ] && break; sleep 0.05; done'
    const rest = 'for i in 2 3; do echo out$i; echo err$i >&2; done; [ -e ~/heard ]'
    const command = `echo out1; echo err1 >&2; ${wait}; ${rest}`
    const started = await sandbox.process.executeSessionCommand('work', { command, runAsync: true })
    const seen: Seen[] = []
    let told: Promise<unknown> | undefined
    const keep = (stream: string) => (chunk: string) => {
      seen.push([stream, chunk])
      told ??= sandbox.process.executeCommand('touch ~/heard')
    }
    await sandbox.process.getSessionCommandLogs('work', started.cmdId!, keep('out'), keep('err'))
    await told
    saw.followed = seen
    saw.exit = (await sandbox.process.getSessionCommand('work', started.cmdId!)).exitCode
    const logs = await sandbox.process.getSessionCommandLogs('work', started.cmdId!)
    saw.logs = [logs.stdout, logs.stderr]
    saw.sessions = (await sandbox.process.listSessions()).map((one) => [one.sessionId, one.commands?.length])

    saw.unknown = await refused(daytona.get('no-such-sandbox'))
    saw.unknownSession = await refused(sandbox.process.getSession('nowhere'))
    saw.wrongKey = await refused(new Daytona({ apiKey: 'wrong', apiUrl: process.env.DAYTONA_API_URL }).get(sandbox.id))

    await sandbox.stop()
    saw.stopped = sandbox.state
    await sandbox.start()
    saw.started = sandbox.state
  } finally {
    await sandbox.delete()
  }
  console.log(JSON.stringify(saw))
}

main()
