import { Page } from "../app.js";
import { fakeConnect } from "./fake.js";

const page = new Page(fakeConnect(new URLSearchParams(window.location.search)));
Object.assign(window, { page });
page.start();
