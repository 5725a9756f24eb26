// The child that runs npm's pkarr, client and relay; it speaks the JSON lines that peers/process.py describes.

import readline from 'node:readline'
import Pkarr, { SignedPacket, generateKeyPair } from 'pkarr'
import DHT from 'pkarr/lib/dht.js'
import Relay from 'pkarr/lib/relay.js'
import sodium from 'sodium-universal'

// The relay logs each request on standard output, where our lines go.
console.log = () => {}

const emit = message => process.stdout.write(JSON.stringify(message) + '\n')
const hex = text => Buffer.from(text, 'hex')
// Its routing table would be kept in the user's home.
const storage = { loadRoutingTable () {}, saveRoutingTable () {} }
const dhts = []
let relay = null

// Without `verify` a node refuses to hold the items of others.
const verify = sodium.crypto_sign_verify_detached

async function openDht (bootstrap, host, values) {
  const nodes = bootstrap.map(([host, port]) => ({ host, port }))
  const dht = new DHT({ bootstrap: nodes.length ? nodes : false, storage, host, verify, maxValues: values })
  dht._dht.on('error', error => console.error(String(error)))
  await new Promise(resolve => dht._dht.listen(0, host, resolve))
  await new Promise(resolve => dht._dht.ready ? resolve() : dht._dht.once('ready', resolve))
  dhts.push(dht)
  return dht
}

const commands = {
  async start_relay ({ bootstrap, host, values }) {
    const dht = await openDht(bootstrap, host, values)
    relay = await Relay.start({ dht })
    return { url: `http://127.0.0.1:${relay.port}`, dht: [host, dht._dht.address().port] }
  },
  async open_dht ({ bootstrap, host, values }) {
    const dht = await openDht(bootstrap, host, values)
    return { dht: [host, dht._dht.address().port] }
  },
  async add_node ({ dht, address: [host, port] }) {
    dhts[dht]._dht.addNode({ host, port })
    return {}
  },
  async relay_put ({ url, seed, texts, timestamp }) {
    const keyPair = generateKeyPair(hex(seed))
    const name = '_iroh'
    const answers = texts.map(data => ({ name, type: 'TXT', ttl: 30, data }))
    const packet = { id: 0, type: 'response', flags: 0, answers }
    const signed = SignedPacket.fromPacket(keyPair, packet, { timestamp })
    const response = await Pkarr.relayPut(url, signed)
    return { status: response.status, text: await response.text() }
  },
  async relay_get ({ url, key }) {
    const packet = await Pkarr.relayGet(url, hex(key))
    const answers = packet.packet().answers
    return {
      timestamp: packet.timestamp(),
      names: answers.map(answer => answer.name),
      texts: answers.map(answer => Buffer.concat([].concat(answer.data)).toString())
    }
  },
  async timed_gets ({ url, key, count }) {
    const timed = async () => {
      const start = performance.now()
      await Pkarr.relayGet(url, hex(key))
      return performance.now() - start
    }
    const cold = await timed()
    const warm = []
    for (let number = 0; number < count; number++) warm.push(await timed())
    return { cold, warm }
  },
  async count_values ({ dht }) {
    return { values: dhts[dht]._dht._values.length }
  },
  async memory () {
    if (global.gc) global.gc()
    return { resident: process.memoryUsage().rss }
  },
  async busy () {
    const { user, system } = process.cpuUsage()
    return { cpu: (user + system) / 1e6 }
  }
}

const input = readline.createInterface({ input: process.stdin })
input.on('line', async line => {
  const { id, do: name, ...options } = JSON.parse(line)
  try {
    emit({ id, ok: await commands[name](options) })
  } catch (error) {
    emit({ id, error: `${name}: ${error.stack}` })
  }
})
input.on('close', () => process.exit(0))
emit({ event: 'ready' })
