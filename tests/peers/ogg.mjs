// Opus packets as a file that players read (RFC 7845).

const CRC = Uint32Array.from({ length: 256 }, (_, byte) => {
  let value = byte << 24;
  for (let bit = 0; bit < 8; bit += 1) value = value & 0x80000000 ? (value << 1) ^ 0x04c11db7 : value << 1;
  return value;
});

function page(flags, granule, sequence, packet) {
  const lacing = [...Array(Math.floor(packet.length / 255)).fill(255), packet.length % 255];
  const head = Buffer.alloc(27);
  head.write('OggS');
  head[5] = flags;
  head.writeBigUInt64LE(BigInt(granule), 6);
  head.writeUInt32LE(1, 14);
  head.writeUInt32LE(sequence, 18);
  head[26] = lacing.length;
  const all = Buffer.concat([head, Buffer.from(lacing), packet]);
  all.writeUInt32LE(all.reduce((crc, byte) => ((crc << 8) ^ CRC[(crc >>> 24) ^ byte]) >>> 0, 0), 22);
  return all;
}

/** An Ogg Opus file of packets of 20 ms. */
export function oggOpus(packets) {
  const head = Buffer.from([...Buffer.from('OpusHead'), 1, 2, 0, 0, 0x80, 0xbb, 0, 0, 0, 0, 0]);
  const tags = Buffer.concat([Buffer.from('OpusTags'), Buffer.alloc(8)]);
  const sound = packets.map((packet, i) => page(i + 1 === packets.length ? 4 : 0, 960 * (i + 1), i + 2, Buffer.from(packet)));
  return Buffer.concat([page(2, 0, 0, head), page(0, 0, 1, tags), ...sound]);
}
