// Sends events through Segment's SDK for Node, unmodified; only `host` names TrackLayer.
//   node analytics-node.mjs ADDRESS WRITE_KEY < events.json
// Standard input: an array of Segment-spec events with their messageId. Prints {"delivered": [messageId], "errors": [text]}.
import { readFileSync } from 'node:fs'
import { Analytics } from '@segment/analytics-node'

const [host, writeKey] = process.argv.slice(2)
const events = JSON.parse(readFileSync(0, 'utf8'))
const delivered = []
const errors = []

const analytics = new Analytics({ host, writeKey })
analytics.on('error', error => errors.push(`${error.code}: ${error.reason ?? error}`))
for (const { type, ...event } of events) {
  analytics[type](event, (error, ctx) => {
    if (error === undefined) delivered.push(ctx.event.messageId)
    else errors.push(String(error))
  })
}
await analytics.closeAndFlush({ timeout: 60_000 })
console.log(JSON.stringify({ delivered, errors }))
