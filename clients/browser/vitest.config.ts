import { defineConfig } from "vitest/config";

export default defineConfig({
  test: {
    restoreMocks: true,
    unstubGlobals: true,
    projects: [
      { extends: true, test: { name: "dom", environment: "jsdom", include: ["test/*.test.ts", "test/*.test.tsx"] } },
      {
        extends: true,
        test: { name: "chromium", environment: "node", include: ["test/chromium/*.test.ts"], testTimeout: 30_000, hookTimeout: 60_000 },
      },
    ],
  },
});
