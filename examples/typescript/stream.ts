// Watch a build while it runs: each line goes to the stream it was written to, as soon as it is there.
import { Daytona } from '@daytona/sdk'

const build = `(
for part in parser planner runtime; do
  echo "compiling $part"
  sleep 1
  echo "warning: $part has no tests" >&2
done
exit 3
)`

const sandbox = await new Daytona().create()
try {
  await sandbox.process.createSession('build')
  const { cmdId } = await sandbox.process.executeSessionCommand('build', { command: build, runAsync: true })
  await sandbox.process.getSessionCommandLogs(
    'build',
    cmdId,
    (text) => process.stdout.write(text),
    (text) => process.stderr.write(text),
  )
  const { exitCode } = await sandbox.process.getSessionCommand('build', cmdId)
  console.log(`the build ended with ${exitCode}`)
} finally {
  await sandbox.delete()
}
