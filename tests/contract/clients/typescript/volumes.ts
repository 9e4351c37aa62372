// A volume shared by two sandboxes, by the TypeScript SDK; prints what it saw as one JSON object.
import { Daytona } from '@daytona/sdk'

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
  const name = `typescript-${Date.now()}`
  const volume = await daytona.volume.get(name, true)
  saw.made = [volume.name === name, volume.state]
  const one = await daytona.create({ volumes: [{ volumeId: volume.id, mountPath: '/data' }] })
  const two = await daytona.create({ volumes: [{ volumeId: name, mountPath: '/part', subpath: 'a/b' }] })
  try {
    saw.shown = [one.volumes, two.volumes?.map((mount) => [mount.volumeId === volume.id, mount.mountPath, mount.subpath])]
    await one.process.executeCommand('echo shared > /data/a/b/file; echo hidden > /data/file')
    saw.read = (await two.process.executeCommand('cat /part/file; ls /part')).result
    saw.listed = (await daytona.volume.list()).some((each) => each.id === volume.id)
    saw.inUse = await refused(daytona.volume.delete(volume))
  } finally {
    await one.delete()
    await two.delete()
  }
  await daytona.volume.delete(volume)
  saw.left = (await daytona.volume.list()).some((each) => each.id === volume.id)
  saw.id = volume.id
  console.log(JSON.stringify(saw))
}

main()
