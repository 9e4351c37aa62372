// Pause, resize, fork, archive and restore by the TypeScript SDK; prints what it saw as one JSON object.
import { Daytona } from '@daytona/sdk'

async function message(work: Promise<unknown>): Promise<string> {
  try {
    await work
  } catch (error) {
    return (error as Error).message
  }
  return ''
}

async function main() {
  const daytona = new Daytona()
  const saw: Record<string, unknown> = {}
  const sandbox = await daytona.create()
  saw.id = sandbox.id
  try {
    await sandbox.process.executeCommand('echo kept > "$HOME/note"')
    await sandbox.pause()
    saw.paused = sandbox.state
    await sandbox.start()
    saw.resumed = sandbox.state
    const refused = await message(sandbox.resize({ cpu: 2 }))
    saw.resize = refused.includes('not supported') ? 'refused' : refused || 'resized'
    saw.recover = await message(sandbox.recover())
    const fork = await sandbox.fork()
    try {
      saw.fork = [fork.state, (await fork.process.executeCommand('cat "$HOME/note"')).result]
    } finally {
      await fork.delete()
    }
    await sandbox.stop()
    await sandbox.archive()
    while (sandbox.state === 'archiving') await sandbox.refreshData()
    saw.archived = sandbox.state
    await sandbox.start()
    saw.restored = [sandbox.state, (await sandbox.process.executeCommand('cat "$HOME/note"')).result]
  } finally {
    await sandbox.delete()
  }
  console.log(JSON.stringify(saw))
}

main()
