import js from "@eslint/js";
import tseslint from "typescript-eslint";

export default tseslint.config(
  { ignores: ["dist/", "docs-api/", "node_modules/", "page/tests/", "page/dev/"] },
  js.configs.recommended,
  tseslint.configs.strictTypeChecked,
  {
    languageOptions: { parserOptions: { projectService: { allowDefaultProject: ["*.js", "*.ts"] } } },
    rules: {
      "@typescript-eslint/no-non-null-assertion": "error",
      "@typescript-eslint/restrict-template-expressions": ["error", { allowNumber: true, allowBoolean: true }],
      "@typescript-eslint/no-confusing-void-expression": "off",
    },
  },
  // Scripts run in Node, and partly in the pages that they drive: neither's globals are known here, and the runs show what is missing.
  { files: ["**/*.js", "**/*.mjs", "*.config.ts"], extends: [tseslint.configs.disableTypeChecked], rules: { "no-undef": "off" } },
);
