// Git by the TypeScript SDK: SANDBOX URL FOLDER; prints what it saw as one JSON object.
import { Daytona } from 'the-sdk'

const [id, url, folder] = process.argv.slice(2)
const [user, password] = ['someone', 'secret']

async function refused(call: Promise<unknown>): Promise<string> {
  try {
    await call
  } catch (error) {
    return (error as Error).constructor.name
  }
  return 'nothing was thrown'
}

async function main() {
  const sandbox = await new Daytona().get(id)
  const git = sandbox.git
  const saw: Record<string, unknown> = {}
  const [one, two] = [`${folder}/ts-one`, `${folder}/ts-two`]
  saw.noPassword = await refused(git.clone(url, one))
  await git.clone(url, one, undefined, undefined, user, password)
  await git.clone(url, two, 'main', undefined, user, password)
  const branch = `typescript-${Date.now()}`
  await git.createBranch(one, branch)
  saw.exists = await refused(git.createBranch(one, 'main'))
  await sandbox.process.executeCommand(`echo it >'${one}/new file.txt'`)
  const changed = await git.status(one)
  saw.changed = [changed.currentBranch === branch, changed.fileStatus.map((file) => [file.name, file.worktree])]
  await git.add(one, ['new file.txt'])
  const made = await git.commit(one, 'a message', 'Ann', 'ann@example.com')
  await git.push(one, user, password)
  await git.pull(two, user, password, branch)
  const head = await sandbox.process.executeCommand(`git -C '${two}' rev-parse HEAD`)
  saw.pulled = head.result!.trim() === made.sha
  await git.checkoutBranch(one, 'main')
  await git.deleteBranch(one, branch)
  saw.branches = (await git.branches(one)).branches
  saw.noBranch = await refused(git.checkoutBranch(one, 'nowhere'))
  saw.noRepository = await refused(git.status(`${one}-none`))
  if ('init' in git) {
    await git.init(`${one}-fresh`, false, 'trunk')
    await git.remoteAdd(`${one}-fresh`, 'up', url)
    saw.remote = (await git.remoteGet(`${one}-fresh`, 'up')) === url
    await git.setConfig('user.name', 'Here', 'local', one)
    saw.config = await git.getConfig('user.name', 'local', one)
  }
  console.log(JSON.stringify(saw))
}

main()
