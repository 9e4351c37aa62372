// Snapshots and builds through the TypeScript SDK on Node; prints what it saw as one JSON object.
// Arguments: a name that nobody has, a file, a folder. Bundled with the-sdk aliased to a name of the package.
import { Daytona, Image } from 'the-sdk'

async function refused(call: Promise<unknown>): Promise<[string, string]> {
  try {
    await call
  } catch (error) {
    return [(error as Error).constructor.name, (error as Error).message]
  }
  return ['nothing was thrown', '']
}

async function main() {
  const [name, file, folder] = process.argv.slice(2)
  const daytona = new Daytona()
  const saw: Record<string, unknown> = {}
  const image = Image.base('busybox:latest')
    .addLocalFile(file, '/data/file.txt')
    .addLocalDir(folder, '/data/folder')
    .runCommands('echo from-the-build', 'sleep 2', 'echo the-end')
  const logs: string[] = []
  const made = await daytona.snapshot.create({ name, image }, { onLogs: (chunk: string) => logs.push(chunk) })
  saw.made = [made.name, made.state]
  saw.logs = logs.join('\n')
  saw.listed = (await daytona.snapshot.list()).items.map((one) => one.name).includes(name)
  const sandbox = await daytona.create({ snapshot: name })
  saw.snapshot = sandbox.snapshot
  saw.read = (await sandbox.process.executeCommand('cat /data/file.txt /data/folder/sub/deep.txt')).result
  await sandbox.delete()

  const buildLogs: string[] = []
  const built = await daytona.create(
    { image: image.runCommands('echo for-a-sandbox') },
    { onSnapshotCreateLogs: (chunk: string) => buildLogs.push(chunk), timeout: 240 },
  )
  saw.built = [built.state, (await built.process.executeCommand('cat /data/file.txt')).result]
  saw.buildLogs = buildLogs.join('\n')
  await built.delete()

  const failing = Image.base('busybox:latest').runCommands('exit 9')
  saw.failed = await refused(daytona.snapshot.create({ name: `${name}-bad`, image: failing }))
  const labels = { failing: name }
  saw.failedSandbox = await refused(daytona.create({ image: failing, labels }, { timeout: 240 }))
  // The library takes only the state from an event, so the text of what it throws may lack the reason.
  for await (const one of daytona.list({ labels })) saw.failedReason = one.errorReason
  for (const one of [name, `${name}-bad`]) await daytona.snapshot.delete(await daytona.snapshot.get(one))
  saw.gone = await refused(daytona.snapshot.get(name))
  console.log(JSON.stringify(saw))
}

await main()
