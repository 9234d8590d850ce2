// As much of wasi as is used here, as StarlingMonkey has it.

declare module "wasi:cli/environment@0.2.12" {
  export function getEnvironment(): [name: string, value: string][];
}

declare module "wasi:http/outgoing-handler@0.2.12" {
  import type { FutureIncomingResponse, OutgoingRequest, RequestOptions } from "wasi:http/types@0.2.12";

  /** Throws an `ErrorCode` as the `payload` of an Error. */
  export function handle(request: OutgoingRequest, options: RequestOptions | undefined): FutureIncomingResponse;
}

declare module "wasi:http/types@0.2.12" {
  export type Result<T, E> = { tag: "ok"; val: T } | { tag: "err"; val: E };
  /** `connection-refused` for example. */
  export type ErrorCode = { tag: string; val?: unknown };

  export class Fields {
    static fromList(entries: [name: string, value: Uint8Array][]): Fields;
    get(name: string): Uint8Array[];
    [Symbol.dispose](): void;
  }

  export class OutgoingRequest {
    constructor(headers: Fields);
    body(): OutgoingBody;
    setMethod(method: { tag: "post" }): void;
    setScheme(scheme: { tag: "HTTP" | "HTTPS" }): void;
    setAuthority(authority: string): void;
    setPathWithQuery(path: string): void;
  }

  export class RequestOptions {
    setConnectTimeout(ns: bigint): void;
    setFirstByteTimeout(ns: bigint): void;
    setBetweenBytesTimeout(ns: bigint): void;
  }

  export class OutgoingBody {
    static finish(body: OutgoingBody, trailers: Fields | undefined): void;
    write(): { blockingWriteAndFlush(bytes: Uint8Array): void; [Symbol.dispose](): void };
  }

  export class FutureIncomingResponse {
    subscribe(): { block(): void; [Symbol.dispose](): void };
    get(): Result<Result<IncomingResponse, ErrorCode>, undefined> | undefined;
    [Symbol.dispose](): void;
  }

  export class IncomingResponse {
    status(): number;
    headers(): Fields;
    consume(): IncomingBody;
    [Symbol.dispose](): void;
  }

  export class IncomingBody {
    static finish(body: IncomingBody): { [Symbol.dispose](): void };
    /** Reading throws where the stream ends. */
    stream(): { blockingRead(length: bigint): Uint8Array; [Symbol.dispose](): void };
  }
}
