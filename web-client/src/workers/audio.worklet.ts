import { Capture } from "../capture/capture-processor.js";
import { Playout } from "../playout/playout-processor.js";

// The one module that audio contexts load: playing, and (where a browser has no better road) capturing.

registerProcessor("wzp-playout", Playout);
registerProcessor("wzp-capture", Capture);
