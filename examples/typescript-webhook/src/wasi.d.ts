declare module "wasi:cli/environment@0.2.12" {
  export function getEnvironment(): [name: string, value: string][];
}
