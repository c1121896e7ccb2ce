// A bounded cache of items that are fetched by number, such as decoded frames.

export class Cache {
  #items = new Map(); // the most recently used item comes last
  #loading = new Map();

  /**
   * @param load fetches an item: (number, signal, priority) → promise.
   * @param capacity how many items are kept.
   * @param isNeeded whether an old item must be kept: (item) → boolean.
   * @param release frees what an item holds: (item) → nothing.
   */
  constructor({ load, capacity, isNeeded = () => false, release = () => {} }) {
    Object.assign(this, { load, capacity, isNeeded, release });
  }

  /** The promise of an item. `cancelOthers` may reject it with an AbortError. */
  get(number, priority = "auto") {
    const item = this.#items.get(number);
    if (item) {
      this.#items.delete(number);
      this.#items.set(number, item);
      return Promise.resolve(item);
    }
    if (!this.#loading.has(number)) this.#start(number, priority);
    return this.#loading.get(number).promise;
  }

  #start(number, priority) {
    const controller = new AbortController();
    const loading = { controller };
    loading.promise = this.load(number, controller.signal, priority)
      .then((item) => {
        if (controller.signal.aborted) {
          this.release(item);
          throw controller.signal.reason;
        }
        this.#items.set(number, item);
        this.#evict();
        return item;
      })
      .finally(() => {
        if (this.#loading.get(number) === loading) this.#loading.delete(number);
      });
    this.#loading.set(number, loading);
  }

  #evict() {
    for (const [number, item] of this.#items) {
      if (this.#items.size <= this.capacity) return;
      if (this.isNeeded(item)) continue;
      this.drop(number);
    }
  }

  /** The item, if it is cached. */
  peek(number) {
    return this.#items.get(number);
  }

  /** Drop an item. */
  drop(number) {
    const item = this.#items.get(number);
    if (item) this.release(item);
    this.#items.delete(number);
  }

  /** Drop everything that is not needed. */
  clear() {
    for (const [number, item] of this.#items) if (!this.isNeeded(item)) this.drop(number);
  }

  /** Cancel all fetches except those of the given numbers. */
  cancelOthers(...numbers) {
    for (const [number, { controller }] of this.#loading) {
      if (numbers.includes(number)) continue;
      this.#loading.delete(number);
      controller.abort();
    }
  }
}
