import store from "wasi:config/store@0.2.0-rc.1";

export const config = {
  get: (key) => store.get(key),
  all: () => Object.fromEntries(store.getAll()),
};

export function secret(key) {
  return store.get(key);
}
