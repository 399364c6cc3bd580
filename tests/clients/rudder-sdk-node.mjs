// Sends events through RudderStack's SDK for Node, unmodified; only `dataPlaneUrl` names TrackLayer. Gzip is its default.
//   node rudder-sdk-node.mjs ADDRESS WRITE_KEY < events.json
// Standard input: an array of Segment-spec events with their messageId. Prints {"delivered": [messageId], "errors": [text]}.
import { readFileSync } from 'node:fs'
import RudderAnalytics from '@rudderstack/rudder-sdk-node'

const [dataPlaneUrl, writeKey] = process.argv.slice(2)
const events = JSON.parse(readFileSync(0, 'utf8'))
const delivered = []
const errors = []

const client = new RudderAnalytics(writeKey, { dataPlaneUrl, errorHandler: error => errors.push(String(error)) })
const calls = events.map(({ type, ...event }) => new Promise(done => {
  client[type](event, error => {
    if (error) errors.push(String(error))
    else delivered.push(event.messageId)
    done()
  })
}))
await client.flush()
await Promise.all(calls)
console.log(JSON.stringify({ delivered, errors }))
process.exit(0)
