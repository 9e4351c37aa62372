// Files through the TypeScript SDK on Node; prints what it saw as one JSON object.
import { Daytona } from 'the-sdk'
import { Buffer } from 'node:buffer'
import { Readable } from 'node:stream'

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
  const content = Buffer.alloc(500_000, 'abc\0é')
  const sandbox = await daytona.create()
  const fs = sandbox.fs
  try {
    await fs.uploadFile(content, 'work/bytes ü.bin')
    saw.bytes = content.equals(await fs.downloadFile('work/bytes ü.bin'))
    await fs.uploadFiles([
      { source: Buffer.from('one'), destination: 'work/a/1.txt' },
      { source: Buffer.from('needle here\n'), destination: 'work/a/2.txt' },
    ])
    const got = await fs.downloadFiles([{ source: 'work/a/1.txt' }, { source: 'nowhere' }])
    saw.bulk = got.map((one) => [one.source, one.result?.toString(), Boolean(one.error)])
    if ('uploadFileStream' in fs) {
      await fs.uploadFileStream(Readable.from([content, content]), 'work/stream.bin')
      const parts: Buffer[] = []
      for await (const part of await fs.downloadFileStream('work/stream.bin')) parts.push(part as Buffer)
      saw.stream = Buffer.concat([content, content]).equals(Buffer.concat(parts))
    }
    await fs.createFolder('work/new', '700')
    saw.list = (await fs.listFiles('work')).map((one) => one.name)
    saw.info = (await fs.getFileDetails('work/new')).permissions
    saw.find = (await fs.findFiles('work', 'needle')).map((one) => [one.file, one.line, one.content])
    saw.search = (await fs.searchFiles('work', '*.txt')).files
    saw.replace = (await fs.replaceInFiles(['work/a/2.txt'], 'needle', 'pin')).map((one) => one.success)
    await fs.setFilePermissions('work/a/2.txt', { mode: '640' })
    saw.mode = (await fs.getFileDetails('work/a/2.txt')).permissions
    await fs.moveFiles('work/a/2.txt', 'work/moved.txt')
    saw.moved = (await fs.downloadFile('work/moved.txt')).toString()
    saw.onto = await refused(fs.uploadFile(Buffer.from('x'), 'work/a'))
    saw.missing = await refused(fs.downloadFile('nowhere'))
    saw.conflict = await refused(fs.moveFiles('work/moved.txt', 'work/a'))
    await fs.deleteFile('work', true)
    saw.deleted = await refused(fs.getFileDetails('work'))
    if ('downloadUrl' in sandbox) {
      const form = new FormData()
      form.append('file', new Blob(['signed']), 'x')
      saw.signedUpload = (await fetch(await sandbox.uploadUrl('si gned ü'), { method: 'POST', body: form })).status
      const url = await sandbox.downloadUrl('si gned ü', 60)
      saw.signedDownload = await (await fetch(url)).text()
      await sandbox.rotateSigningKey()
      saw.signedAfterRotation = (await fetch(url)).status
    }
  } finally {
    await sandbox.delete()
  }
  console.log(JSON.stringify(saw))
}

main()
