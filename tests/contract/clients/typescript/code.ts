// The TypeScript SDK on Node: code by language, the interpreter with callbacks, contexts and a timeout, in the sandbox
// named on the command line; prints what it saw as one JSON object.
import { Daytona } from 'the-sdk'

async function main() {
  const sandbox = await new Daytona().get(process.argv[2])
  const saw: Record<string, unknown> = {}
  const done = await sandbox.process.codeRun('import sys; print(sys.argv[1:]); sys.exit(3)', { argv: ['a b', '$(x)'] })
  saw.code = [done.exitCode, done.result]

  const interpreter = sandbox.codeInterpreter
  const seen: string[][] = []
  const result = await interpreter.runCode('import sys\nx = 5\nprint("one")\nprint("two", file=sys.stderr)\n1 / 0', {
    onStdout: (message) => void seen.push(['out', message.output]),
    onStderr: (message) => void seen.push(['err', message.output]),
    onError: (error) => void seen.push(['error', error.name]),
  })
  saw.seen = seen.sort()
  saw.error = [result.error?.name, result.error?.value]
  const context = await interpreter.createContext('/tmp')
  saw.apart = (await interpreter.runCode('print("x" in globals())', { context })).stdout
  saw.listed = (await interpreter.listContexts()).map((one) => one.cwd)
  await interpreter.deleteContext(context)
  saw.kept = (await interpreter.runCode('print(x)')).stdout
  const failed = async (code: string, options: object) => {
    try {
      await interpreter.runCode(code, options)
      return 'nothing was thrown'
    } catch (error) {
      return (error as Error).constructor.name
    }
  }
  saw.timeout = await failed('import time; time.sleep(60)', { timeout: 1 })
  saw.deleted = await failed('1', { context })
  saw.died = await failed('import os; os._exit(3)', {})
  console.log(JSON.stringify(saw))
}

main()
