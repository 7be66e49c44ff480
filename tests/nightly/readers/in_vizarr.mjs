// Does with zarrita, of the version that vizarr 0.3 has, what vizarr does with a store.
import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import * as zarr from "zarrita";
import FileSystemStore from "@zarrita/storage/fs";

const asked = JSON.parse(process.argv[2]);

function check(holds, message) {
  if (!holds) throw new Error(message);
}

// As resolveAttrs, isOmeMultiscales and getNgffAxes there.
const resolved = (attrs) => attrs.ome ?? attrs;
const axesOf = (attrs) => attrs.multiscales[0].axes.map((axis) => axis.name);

async function levelsOf(group, attrs) {
  const arrays = [];
  for (const { path } of attrs.multiscales[0].datasets) {
    arrays.push(await zarr.open(group.resolve(path), { kind: "array" }));
  }
  check(arrays.every((array) => array.is("number")), `no 64 bits: ${arrays[0].dtype}`);
  return arrays;
}

async function seen(array, transformations) {
  const { data } = await zarr.get(array);
  const pixels = createHash("sha256").update(new Uint8Array(data.buffer, 0, data.byteLength));
  const said = Object.fromEntries(transformations.map((each) => [each.type, each[each.type]]));
  return { shape: array.shape, dtype: array.dtype, pixels: pixels.digest("hex"), ...said };
}

const root = zarr.root(new FileSystemStore(asked.store));
const image = await zarr.open(root, { kind: "group" });
const about = resolved(image.attrs);
const imageLevels = await levelsOf(image, about);
let group = image;
if (asked.inside) {
  check("omero" in about, "the image has no omero");
  const list = await zarr.open(image.resolve("labels"), { kind: "group" });
  // Not resolved in vizarr: it finds no labels in an image of 0.5.
  const names = asked.version === "0.4" ? list.attrs.labels : resolved(list.attrs).labels;
  check(names.includes(asked.name), `the image lists the labels ${names}`);
  group = await zarr.open(list.resolve(asked.name), { kind: "group" });
}
const attrs = resolved(group.attrs);
check("image-label" in attrs, "no image-label");
check(axesOf(attrs).every((axis) => axesOf(about).includes(axis)), "axes not of the image");
check(!asked.inside || imageLevels.length > 1, "one level: vizarr shows no labels");
const levels = [];
for (const [number, array] of (await levelsOf(group, attrs)).entries()) {
  const said = attrs.multiscales[0].datasets[number].coordinateTransformations;
  levels.push(await seen(array, said));
}
const version = JSON.parse(readFileSync(new URL("node_modules/zarrita/package.json", import.meta.url)));
console.log(
  "\n" +
    JSON.stringify({
      reader: `vizarr's rules by hand, zarrita ${version.version}`,
      labels: { axes: axesOf(attrs), levels },
    }),
);
