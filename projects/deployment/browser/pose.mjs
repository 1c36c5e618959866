// The people of a picture, by onnxruntime-web and a file of `dynpose export`:
//
//     const pose = await Pose.load("pose.onnx");
//     const people = await pose.predict(imageData);
//
// The file says how the picture is resized, padded and ordered; nothing of a model is written here. Coordinates are
// continuous pixels of the picture: (0, 0) is the corner of the upper left pixel.

export class Pose {
  // description: the file's JSON; session: onnxruntime-web's
  constructor(ort, session, description) {
    Object.assign(this, { ort, session, description });
  }

  static async load(url) {
    const answer = await fetch(url);
    if (!answer.ok) throw new Error(`${url}: ${answer.status} ${answer.statusText}`);
    const file = new Uint8Array(await answer.arrayBuffer());
    const description = describe(file, url);
    const ort = await import("onnxruntime-web/wasm");
    return new Pose(ort, await ort.InferenceSession.create(file), description);
  }

  // ImageData -> [{score, name, box: [x0, y0, x1, y1], keypoints: [[x, y, confidence], ...]}, ...]
  async predict(image) {
    const { input, inputs, outputs } = this.description;
    const [height, width] = inputSize(input, image.height, image.width);
    const padded = [height, width].map((side) => Math.ceil(side / input.size_divisibility) * input.size_divisibility);
    const pixels = planes(resized(image, height, width), input.channels, ...padded);
    const { Tensor } = this.ort;
    const results = await this.session.run({
      [inputs[0]]: new Tensor("float32", pixels, [1, 3, ...padded]),
      [inputs[1]]: new Tensor("int64", BigInt64Array.of(BigInt(height), BigInt(width)), [1, 2]),
    });
    const values = outputs.map((name) => results[name].data);
    return people(this.description, values, image, [image.width / width, image.height / height]);
  }
}

// The property "dynpose" of an ONNX file, which onnxruntime-web does not give: field 14 of its protocol buffer.
export function describe(file, name) {
  const text = new TextDecoder();
  for (const [field, entry] of fields(file)) {
    if (field !== 14) continue;
    const { 1: key, 2: value } = Object.fromEntries(fields(entry));
    if (text.decode(key) !== "dynpose") continue;
    const description = JSON.parse(text.decode(value));
    if (description.format !== 1) throw new Error(`${name}: a later dynpose wrote it`);
    return description;
  }
  throw new Error(`${name}: it is not a dynpose export`);
}

// Number and bytes of each field of a message.
function* fields(bytes) {
  let at = 0;
  const varint = () => {
    let value = 0;
    for (let factor = 1; ; factor *= 128) {
      if (at >= bytes.length) throw new Error("the file is damaged");
      const byte = bytes[at++];
      value += (byte & 127) * factor;
      if (byte < 128) return value;
    }
  };
  while (at < bytes.length) {
    const tag = varint();
    const size = { 0: () => (varint(), 0), 1: () => 8, 2: varint, 5: () => 4 }[tag % 8]?.();
    if (size === undefined || at + size > bytes.length) throw new Error("the file is damaged");
    yield [Math.floor(tag / 8), bytes.subarray(at, at + size)];
    at += size;
  }
}

// The shorter side gets min_size pixels, or fewer if the longer one would exceed max_size.
export function inputSize({ rule, min_size, max_size }, height, width) {
  if (rule !== "shortest_edge") throw new Error(`this page resizes by the rule shortest_edge only, not ${rule.name}`);
  if (min_size === 0) return [height, width];
  let scale = min_size / Math.min(height, width);
  let sides = height < width ? [min_size, scale * width] : [scale * height, min_size];
  if (Math.max(...sides) > max_size) {
    scale = max_size / Math.max(...sides);
    sides = sides.map((side) => side * scale);
  }
  return sides.map((side) => Math.max(1, Math.trunc(side + 0.5)));
}

// Pillow's bilinear resize, bit for bit: models are trained on images that it has made smaller. A canvas's differs.
export function resized({ data, height, width }, newHeight, newWidth) {
  const wide = new Uint8ClampedArray(height * newWidth * 4);
  const result = new Uint8ClampedArray(newHeight * newWidth * 4);
  const columns = weights(width, newWidth);
  for (let y = 0; y < height; y++) {
    columns.forEach((column, x) => mix(data, (y * width + column.first) * 4, 4, column, wide, (y * newWidth + x) * 4));
  }
  weights(height, newHeight).forEach((row, y) => {
    for (let x = 0; x < newWidth; x++) {
      mix(wide, (row.first * newWidth + x) * 4, newWidth * 4, row, result, (y * newWidth + x) * 4);
    }
  });
  return { data: result, height: newHeight, width: newWidth };
}

// One pixel of `target` from pixels of `source` that are `step` bytes apart.
function mix(source, from, step, { values }, target, to) {
  for (let c = 0; c < 3; c++) {
    let sum = 1 << 21;
    for (let k = 0; k < values.length; k++) sum += source[from + k * step + c] * values[k];
    target[to + c] = sum >> 22;
  }
}

// For each output pixel the first input pixel, and weights in 22 bits.
function weights(length, newLength) {
  const scale = length / newLength;
  const support = Math.max(1, scale);
  return Array.from({ length: newLength }, (_, i) => {
    const center = (i + 0.5) * scale;
    const first = Math.max(0, Math.trunc(center - support + 0.5));
    const end = Math.min(length, Math.trunc(center + support + 0.5));
    const shares = Array.from({ length: end - first }, (_, k) =>
      Math.max(0, 1 - Math.abs((first + k - center + 0.5) / support)));
    const sum = shares.reduce((a, b) => a + b, 0);
    return { first, values: shares.map((share) => Math.trunc(0.5 + (share / sum) * (1 << 22))) };
  });
}

// (3, height, width) floats, zero beyond the image.
function planes(image, channels, height, width) {
  const values = new Float32Array(3 * height * width);
  [..."RGB"].forEach((colour, c) => {
    const plane = channels.indexOf(colour) * height * width;
    for (let y = 0; y < image.height; y++) {
      for (let x = 0; x < image.width; x++) {
        values[plane + y * width + x] = image.data[(y * image.width + x) * 4 + c];
      }
    }
  });
  return values;
}

// The rows of the outputs up to the count, scaled to the picture; without people outside it.
export function people(description, [boxes, scores, classes, points, counts], { width, height }, scale) {
  const { keypoint_names, class_names, original_shift: shift = 0 } = description; // some models shift their results
  const K = keypoint_names.length;
  const inside = (value, axis) => Math.min(Math.max(value, 0), axis % 2 ? height : width);
  const found = [];
  for (let n = 0; n < Number(counts[0]); n++) {
    const box = Array.from(boxes.subarray(4 * n, 4 * n + 4), (value, axis) => inside(value * scale[axis % 2], axis));
    if (box[2] <= box[0] || box[3] <= box[1]) continue;
    found.push({
      score: scores[n],
      name: class_names[Number(classes[n])] ?? String(classes[n]),
      box: box.map((value, axis) => inside(value + shift, axis)),
      keypoints: Array.from({ length: K }, (_, k) => {
        const [x, y, confidence] = points.subarray(3 * (n * K + k), 3 * (n * K + k) + 3);
        return [x * scale[0] + shift, y * scale[1] + shift, confidence];
      }),
    });
  }
  return found;
}

// Draws limbs and keypoints; those of a lower confidence are left out.
export function draw(context, found, { skeleton }, confidence = 0.02) {
  found.forEach(({ box, keypoints }, index) => {
    const size = Math.hypot(box[2] - box[0], box[3] - box[1]);
    context.strokeStyle = context.fillStyle = `hsl(${(index * 137) % 360} 90% 50%)`;
    context.lineWidth = Math.max(1, size / 100);
    for (const [a, b] of skeleton) {
      if (keypoints[a][2] < confidence || keypoints[b][2] < confidence) continue;
      context.beginPath();
      context.moveTo(keypoints[a][0], keypoints[a][1]);
      context.lineTo(keypoints[b][0], keypoints[b][1]);
      context.stroke();
    }
    for (const [x, y, sure] of keypoints) {
      if (sure < confidence) continue;
      context.beginPath();
      context.arc(x, y, context.lineWidth * 1.2, 0, 2 * Math.PI);
      context.fill();
    }
  });
}
