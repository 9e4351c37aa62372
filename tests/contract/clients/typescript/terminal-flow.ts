// Terminals through the TypeScript SDK, the same on Node and in a browser: create, type, resize, connect, wait, kill.

export async function terminalFlow(sandbox: any) {
  const process = sandbox.process
  const saw: Record<string, unknown> = {}
  const decoder = new TextDecoder()
  let shown = ''
  const handle = await process.createPty({
    id: 'ts', cwd: '/usr', envs: { GREETING: 'hi there' }, cols: 100, rows: 30,
    onData: (data: Uint8Array) => { shown += decoder.decode(data, { stream: true }) },
  })
  await handle.waitForConnection()
  saw.listed = (await process.listPtySessions()).map((one: any) => one.id)
  await handle.sendInput("PS1=; stty -echo; stty size; pwd; echo $GREETING\n")
  const resized = await handle.resize(120, 40)
  saw.resized = [resized.cols, resized.rows]
  await handle.sendInput(new TextEncoder().encode('stty size; exit 3\n'))
  const result = await handle.wait()
  saw.shown = shown
  saw.exit = result.exitCode

  let first = ''
  let second = ''
  const one = await process.createPty({ id: 'two', onData: (data: Uint8Array) => { first += decoder.decode(data) } })
  await one.waitForConnection()
  const other = await process.connectPty('two', { onData: (data: Uint8Array) => { second += decoder.decode(data) } })
  await other.waitForConnection()
  await one.sendInput("echo both''-see\n")
  while (!first.includes('both-see') || !second.includes('both-see')) await new Promise((done) => setTimeout(done, 10))
  await process.killPtySession('two')
  saw.killed = [(await one.wait()).exitCode, (await other.wait()).exitCode]
  return saw
}
