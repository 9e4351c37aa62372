// Take a finished command's output, then look twice at the log of one that goes on.
import { setTimeout as pause } from 'node:timers/promises'
import { Daytona } from '@daytona/sdk'

const sandbox = await new Daytona().create()
try {
  await sandbox.process.createSession('check')
  const done = await sandbox.process.executeSessionCommand('check', { command: 'uname -s; ls /no-such-place' })
  console.log(`exit code ${done.exitCode}`)
  process.stdout.write(`said: ${done.stdout}`)
  process.stdout.write(`complained: ${done.stderr}`)

  const ticking = 'while sleep 0.5; do date +tick-%s; done'
  const clock = await sandbox.process.executeSessionCommand('check', { command: ticking, runAsync: true })
  for (let look = 0; look < 2; look++) {
    await pause(2000)
    const logs = await sandbox.process.getSessionCommandLogs('check', clock.cmdId)
    console.log(`${logs.stdout!.trim().split('\n').length} ticks so far`)
  }
} finally {
  await sandbox.delete()
}
