import js from "@eslint/js";
import tseslint from "typescript-eslint";

// Scripts run in Node, and partly in the pages that they drive.
const GLOBALS = ["process", "console", "URL", "Buffer", "setTimeout", "clearInterval", "setInterval", "fetch", "window", "document", "location", "AudioContext"];

export default tseslint.config(
  { ignores: ["dist/", "docs-api/", "node_modules/"] },
  js.configs.recommended,
  tseslint.configs.strictTypeChecked,
  {
    languageOptions: { parserOptions: { projectService: { allowDefaultProject: ["*.js", "*.ts", "scripts/*.js"] } } },
    rules: {
      "@typescript-eslint/no-non-null-assertion": "error",
      "@typescript-eslint/restrict-template-expressions": ["error", { allowNumber: true, allowBoolean: true }],
      "@typescript-eslint/no-confusing-void-expression": "off",
    },
  },
  { files: ["**/*.js", "*.config.ts"], extends: [tseslint.configs.disableTypeChecked], languageOptions: { globals: Object.fromEntries(GLOBALS.map((name) => [name, "readonly"])) } },
);
