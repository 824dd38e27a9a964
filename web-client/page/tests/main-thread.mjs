// How long the main thread of pages is taken up, by Chromium's own tracing.

/** What `RunTask` (every task of a thread, with its CPU time) and the marks of pages are filed under. */
const CATEGORIES = ["-*", "disabled-by-default-devtools.timeline", "devtools.timeline", "blink.user_timing"];
const MARK = "page under watch: ";

/** Begins to trace all of a browser. */
export async function traceMainThreads(browser) {
  await browser.startTracing(undefined, { categories: CATEGORIES });
}

/** The process of each of these pages, by name. */
export async function processes(browser, pages) {
  await browser.startTracing(undefined, { categories: ["-*", "blink.user_timing"] });
  for (const [name, page] of Object.entries(pages)) await page.evaluate((mark) => performance.mark(mark), MARK + name);
  const { traceEvents } = JSON.parse((await browser.stopTracing()).toString());
  return Object.fromEntries(traceEvents.filter(({ name }) => name.startsWith(MARK)).map(({ name, pid }) => [name.slice(MARK.length), pid]));
}

/**
 * Ends tracing. For each of these pages, by name, the tasks of its main thread, longest first: `cpu` is the time that the thread itself ran,
 * `wall` the time that passed meanwhile (on a machine with more to do than cores, mostly waiting for a core), both ms; `at` is counted from the first
 * task of the trace, and `what` names the longest parts.
 */
export async function mainThreadTasks(browser, pages) {
  for (const [name, page] of Object.entries(pages)) await page.evaluate((mark) => performance.mark(mark), MARK + name);
  const { traceEvents } = JSON.parse((await browser.stopTracing()).toString());
  const thread = ({ pid, tid }) => `${pid}:${tid}`;
  const threads = new Map(traceEvents.filter(({ name }) => name.startsWith(MARK)).map((event) => [thread(event), event.name.slice(MARK.length)]));
  const spans = traceEvents.filter((event) => event.ph === "X" && threads.has(thread(event)));
  const start = Math.min(...spans.map(({ ts }) => ts));
  const tasks = Object.fromEntries(Object.keys(pages).map((name) => [name, []]));
  for (const task of spans) {
    if (task.name !== "RunTask" || task.tdur === undefined) continue;
    const parts = () =>
      spans
        .filter((span) => span !== task && thread(span) === thread(task) && span.ts >= task.ts && span.ts + span.dur <= task.ts + task.dur && span.tdur > task.tdur / 5)
        .map(({ name, tdur }) => `${name} ${Math.round(tdur / 1000)}`)
        .slice(0, 8)
        .join(", ");
    tasks[threads.get(thread(task))].push({ cpu: task.tdur / 1000, wall: task.dur / 1000, at: (task.ts - start) / 1000, what: task.tdur > 20_000 ? parts() : "" });
  }
  for (const list of Object.values(tasks)) list.sort((a, b) => b.cpu - a.cpu);
  return tasks;
}
