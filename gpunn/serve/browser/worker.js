// Prepare pictures in a worker, so that drawing does not stall.

import { prepared } from "./prepare.js";

addEventListener("message", ({ data: { picture, about, isLost } }) => {
  let found;
  try {
    found = prepared(picture, about);
  } catch (error) {
    found = { error: error.message };
  }
  if (!isLost) postMessage(found);
});
