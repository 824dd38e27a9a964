import { Page } from "../app.js";
import { fakeConnect } from "./fake.js";

const page = new Page(fakeConnect(new URLSearchParams(window.location.search)), () => undefined);
Object.assign(window, { page });
page.start();
