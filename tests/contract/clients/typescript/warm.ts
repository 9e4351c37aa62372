// Creates from a warm pool that is full, and shows that what comes is the user's own.
import { Daytona } from 'the-sdk'

const daytona = new Daytona()
const sandbox = await daytona.create({ envVars: { GREETING: 'hello' }, labels: { from: 'pool' } })
const said = await sandbox.process.executeCommand('echo $GREETING')
console.log(JSON.stringify({ id: sandbox.id, state: sandbox.state, said: said.result, labels: sandbox.labels }))
await sandbox.delete()
await daytona[Symbol.asyncDispose]?.()
