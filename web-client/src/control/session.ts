import { Acknowledger, SendWindow } from "../media/acknowledge.js";
import { endsPicture, unbundle } from "../media/header.js";
import { Backoff } from "./backoff.js";
import { errorOfClose, isRetried } from "./close-codes.js";
import { parseServerMessage, PROTOCOL_VERSION, type ClientMessage, type Joined, type ServerMessage } from "./messages.js";

/** `WebSocket.OPEN` */
const OPEN = 1;

/** The part of a WebSocket that the session uses, so that tests can put another in its place. */
export interface Socket {
  readonly readyState: number;
  binaryType: BinaryType;
  onopen: (() => void) | null;
  onmessage: ((event: { data: unknown }) => void) | null;
  onclose: ((event: { code: number; reason: string }) => void) | null;
  send(data: string | ArrayBuffer): void;
  close(code?: number, reason?: string): void;
}

export interface SessionOptions {
  name: string;
  id: string;
  token?: string | undefined;
  decode: () => string[];
  openSocket: () => Socket;
  now?: () => number;
  random?: () => number;
}

/** What the session tells its owner. */
export interface SessionEvents {
  /** In the room, for the first time or again; `resumed` false the second time means: as a new participant. */
  joined(message: Joined): void;
  /** The connection broke and is being made again. */
  reconnecting(): void;
  /** Any message that is not the session's own business (hello, auth, ack, ping, pong, joined). */
  message(message: ServerMessage): void;
  media(data: ArrayBuffer): void;
  /** The server acknowledged media: more may be sent. */
  acknowledged(): void;
  /** It is over. Without error: by `leave`, or by an orderly `bye` of the server. */
  closed(error: { code: string; message: string } | undefined): void;
}

/** One stay in a room: connects, joins, acknowledges, keeps alive, and comes back after a loss by itself. */
export class Session {
  static readonly PING_MS = 2000;
  /** Nothing heard for so long: the connection is dead (section 5). */
  static readonly SILENCE_MS = 15_000;
  static readonly CONNECT_MS = 6000;
  /** After a hint that the network changed, an answer must come within this time. */
  static readonly PROBE_MS = 2000;
  /** Attempts before the very first join is given up, and before a lost session is. */
  static readonly FIRST_ATTEMPTS = 3;
  static readonly ATTEMPTS = 20;

  #socket: Socket | undefined;
  #state: "idle" | "connecting" | "joined" | "waiting" | "closed" = "idle";
  #everJoined = false;
  #resume: string | undefined;
  #resumeMs = 10_000;
  #lostAt = 0;
  #fatal: { code: string; message: string } | undefined;
  #bye = false;
  #lastHeard = 0;
  #rtt = 0;
  #acknowledger = new Acknowledger();
  #window = new SendWindow();
  #ackTimer: ReturnType<typeof setTimeout> | undefined;
  /** When it looks. */
  #ackAt = Infinity;
  #reportedBacklog = 0;
  #retryTimer: ReturnType<typeof setTimeout> | undefined;
  #connectTimer: ReturnType<typeof setTimeout> | undefined;
  #probeTimer: ReturnType<typeof setTimeout> | undefined;
  #pingTimer: ReturnType<typeof setInterval> | undefined;
  readonly #backoff: Backoff;
  readonly #now: () => number;

  constructor(
    readonly options: SessionOptions,
    readonly events: SessionEvents,
    /** How much received video waits for decoding, ms. */
    readonly backlog: () => number = () => 0,
  ) {
    this.#now = options.now ?? (() => performance.now());
    this.#backoff = new Backoff(options.random);
  }

  /** The send window of the current connection. */
  get window(): SendWindow {
    return this.#window;
  }

  /** Round trip, ms; 0 while unknown. */
  get rttMs(): number {
    return this.#rtt;
  }

  get isJoined(): boolean {
    return this.#state === "joined";
  }

  start(): void {
    if (this.#state === "idle") this.#connect();
  }

  /** Sends a control message, if in the room. What matters across a reconnect is sent again by the owner at `joined`. */
  send(message: ClientMessage): void {
    if (this.#state === "joined") this.#sendNow(message);
  }

  /** Sends a binary message. @returns false if there is no connection. */
  sendMedia(data: ArrayBuffer): boolean {
    if (this.#state !== "joined" || !this.#socket) return false;
    this.#socket.send(data);
    this.#window.onSent(this.#now(), data.byteLength);
    return true;
  }

  /** Leaves in an orderly way: the others see it at once. */
  leave(reason?: string): void {
    if (this.#state === "closed") return;
    if (this.#socket && this.#state === "joined") this.#sendNow(reason === undefined ? { type: "bye" } : { type: "bye", reason });
    this.#dropSocket(1000);
    this.#end(undefined);
  }

  /** The network may have changed: tries again at once if waiting, and makes sure that the connection still lives if not. */
  networkChanged(): void {
    if (this.#state === "waiting") {
      clearTimeout(this.#retryTimer);
      this.#connect();
    } else if (this.#state === "joined" && this.#probeTimer === undefined) {
      const asked = this.#now();
      this.#sendNow({ type: "ping", t: asked });
      this.#probeTimer = setTimeout(() => {
        this.#probeTimer = undefined;
        if (this.#state === "joined" && this.#lastHeard <= asked) this.#lost();
      }, Session.PROBE_MS);
    }
  }

  #connect(): void {
    this.#state = "connecting";
    this.#fatal = undefined;
    this.#bye = false;
    this.#acknowledger = new Acknowledger();
    this.#reportedBacklog = 0;
    this.#window = new SendWindow();
    let socket: Socket;
    try {
      socket = this.options.openSocket();
    } catch (error) {
      this.#end({ code: "connect_failed", message: `The browser refuses to connect: ${error instanceof Error ? error.message : String(error)}` });
      return;
    }
    this.#socket = socket;
    socket.binaryType = "arraybuffer";
    socket.onopen = () => this.#opened();
    socket.onmessage = (event) => this.#received(event.data);
    socket.onclose = (event) => this.#closed(event.code);
    this.#connectTimer = setTimeout(() => {
      if (this.#state === "connecting") this.#lost();
    }, Session.CONNECT_MS);
    // One that was opened ahead.
    if (socket.readyState === OPEN) this.#opened();
  }

  #opened(): void {
    this.#lastHeard = this.#now();
    this.#sendNow({ type: "hello", versions: [PROTOCOL_VERSION], client: "wzp-web-client" });
    if (this.options.token !== undefined) this.#sendNow({ type: "auth", token: this.options.token });
    const resumable = this.#resume !== undefined && this.#now() - this.#lostAt < this.#resumeMs;
    if (!resumable) this.#resume = undefined;
    this.#sendNow({
      type: "join",
      name: this.options.name,
      id: this.options.id,
      ...(this.#resume === undefined ? {} : { resume: this.#resume }),
      decode: this.options.decode(),
      transport: "websocket",
      bundles: true,
    });
  }

  #received(data: unknown): void {
    this.#lastHeard = this.#now();
    if (data instanceof ArrayBuffer) {
      const messages = unbundle(data);
      this.#acknowledger.onMessage(this.#now(), messages.some(endsPicture));
      for (const message of messages) this.events.media(message);
      this.#scheduleAck();
      return;
    }
    const message = typeof data === "string" ? parseServerMessage(data) : undefined;
    if (message) this.#handle(message);
  }

  #handle(message: ServerMessage): void {
    switch (message.type) {
      case "hello":
        if (message.version !== PROTOCOL_VERSION) {
          this.#fatal = { code: "version_mismatch", message: `The gateway speaks version ${message.version}, this page ${PROTOCOL_VERSION}. Reload it.` };
        }
        break;
      case "auth_ok":
        break;
      case "joined":
        this.#joined(message);
        break;
      case "ack":
        if (!this.#window.onAck(message.media, this.#now())) {
          this.#dropSocket(4400);
          this.#lost();
        } else {
          this.events.acknowledged();
        }
        break;
      case "ping":
        this.#sendNow({ type: "pong", t: message.t });
        break;
      case "pong":
        this.#rtt = Math.max(0, this.#now() - message.t);
        break;
      case "error":
        if (message.fatal) this.#fatal = { code: message.code, message: message.message };
        this.events.message(message);
        break;
      case "bye":
        // A gateway that stops may be one that starts again: that is a lost connection, and not the end of the call.
        this.#bye = message.reason !== "shutting_down";
        break;
      default:
        this.events.message(message);
    }
  }

  #joined(message: Joined): void {
    clearTimeout(this.#connectTimer);
    this.#state = "joined";
    this.#everJoined = true;
    this.#resume = message.resume;
    this.#resumeMs = message.limits.resume_ms;
    this.#backoff.reset();
    clearInterval(this.#pingTimer);
    this.#pingTimer = setInterval(() => this.#keepAlive(), Session.PING_MS);
    this.#sendNow({ type: "ping", t: this.#now() });
    this.events.joined(message);
  }

  #keepAlive(): void {
    if (this.#now() - this.#lastHeard > Session.SILENCE_MS) {
      this.#dropSocket(4408);
      this.#lost();
    } else {
      this.#sendNow({ type: "ping", t: this.#now() });
    }
  }

  /**
   * The decoders' backlog is another. A server that holds video back because of it hears so although everything is acknowledged: with sound
   * over WebRTC nothing else comes that would be.
   */
  backlogChanged(): void {
    if (this.backlog() < this.#reportedBacklog && this.#acknowledger.dueAt() === undefined) this.#acknowledge(this.#acknowledger.received);
  }

  #scheduleAck(): void {
    const now = this.#now();
    const count = this.#acknowledger.take(now);
    if (count !== undefined) this.#acknowledge(count);
    const due = this.#acknowledger.dueAt();
    // One that comes too early asks again; a new one for each message would cost more than the message.
    if (due === undefined || due >= this.#ackAt) return;
    clearTimeout(this.#ackTimer);
    this.#ackAt = due;
    this.#ackTimer = setTimeout(() => {
      this.#ackAt = Infinity;
      this.#scheduleAck();
    }, Math.max(1, due - now));
  }

  #acknowledge(count: number): void {
    const backlog = Math.round(this.backlog());
    this.#reportedBacklog = backlog;
    this.#sendNow(backlog > 0 ? { type: "ack", media: count, backlog_ms: backlog } : { type: "ack", media: count });
  }

  #sendNow(message: ClientMessage): void {
    this.#socket?.send(JSON.stringify(message));
  }

  #closed(code: number): void {
    const orderly = this.#bye && !this.#fatal;
    const error = this.#fatal ?? errorOfClose(code);
    this.#dropSocket();
    if (orderly || (code === 1000 && !error)) this.#end(undefined);
    else if (error && !isRetried(error.code)) this.#end(error);
    else this.#lost();
  }

  #lost(): void {
    this.#dropSocket(4408);
    if (this.#state === "joined") {
      this.#lostAt = this.#now();
      this.#state = "waiting";
      this.events.reconnecting();
    }
    const limit = this.#everJoined ? Session.ATTEMPTS : Session.FIRST_ATTEMPTS;
    if (this.#backoff.attempts >= limit) {
      this.#end(
        this.#fatal ??
          (this.#everJoined
            ? { code: "gateway_gone", message: "The connection to the gateway is lost and does not come back." }
            : { code: "connect_failed", message: "The gateway cannot be reached." }),
      );
      return;
    }
    this.#state = "waiting";
    this.#retryTimer = setTimeout(() => this.#connect(), this.#backoff.next());
  }

  #dropSocket(code?: number): void {
    for (const timer of [this.#ackTimer, this.#connectTimer, this.#probeTimer]) clearTimeout(timer);
    clearInterval(this.#pingTimer);
    this.#ackAt = Infinity;
    this.#probeTimer = undefined;
    const socket = this.#socket;
    this.#socket = undefined;
    if (!socket) return;
    socket.onopen = socket.onmessage = socket.onclose = null;
    if (code !== undefined) {
      try {
        socket.close(code);
      } catch {
        // Closing an already broken socket needs no attention.
      }
    }
  }

  #end(error: { code: string; message: string } | undefined): void {
    if (this.#state === "closed") return;
    clearTimeout(this.#retryTimer);
    this.#state = "closed";
    this.events.closed(error);
  }
}
